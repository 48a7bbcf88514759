"""Storage and front-ends of a member of an ensemble, with a test in the place of its peer."""
