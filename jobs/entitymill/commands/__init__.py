"""The commands of `entitymill`: each module parses the options of one command and returns its exit code.

All commands use the module `common`.
"""
