//! The controller: thin loops around pure decisions. One replica leads, and only the leader writes; every write has a
//! precondition, so that a leader that has lost its lease without knowing it changes nothing that moved on.
