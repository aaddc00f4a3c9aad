"""Python wheels, for whichever kind of environment carries them: resolve, build, install, compare."""
