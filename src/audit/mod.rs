//! What exists, judged as a whole and without a write: findings about every object, flaws of the mesh, who uses which
//! revision. Pure; the controller and the command line carry its answers out.
