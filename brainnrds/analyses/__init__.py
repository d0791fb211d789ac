"""The only place where io, features, estimators, plotting and reporting meet."""
