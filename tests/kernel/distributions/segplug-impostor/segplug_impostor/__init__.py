"""Claims to be built in, and takes another plugin's name."""

raise AssertionError("a plugin whose name is refused must not be imported")
