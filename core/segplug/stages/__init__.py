"""One function per stage; each reads the previous stage's model and writes its own."""
