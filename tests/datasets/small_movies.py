"""Arguments of sample data that are made in seconds."""

SMALL = {
    "n_runs": 2,
    "n_films_per_run": 2,
    "n_repeats": 1,
    "n_test_films": 1,
    "n_test_repeats": 2,
    "film_duration": 20.0,
}
