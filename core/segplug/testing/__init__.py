"""For the tests of plugin authors: phantom data, fixtures and conformance suites."""
