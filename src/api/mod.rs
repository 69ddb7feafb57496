//! Our own custom resources, as the API server holds them.
