//! What each phase does, one file a stretch of the way. Each function takes the one thing that is next, or goes on when there is
//! nothing left to do in it.

pub mod back;
pub mod before;
pub mod forward;
pub mod keep;
pub mod over;
pub mod place;
pub mod prepare;
pub mod stages;
