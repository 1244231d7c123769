"""The report of a data set: what goes into it, its pictures, and the page."""
