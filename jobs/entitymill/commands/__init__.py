"""The commands of `entitymill`, one module each: options in, an exit code out. `common` is shared by all of them."""
