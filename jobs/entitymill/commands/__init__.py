"""The commands of `entitymill`, one module per command.

In each module, `parser()` returns the command's parser, and `main(arguments)` runs the command and returns its exit code.
`main(None)` parses the command line of this process. Three modules are not commands: `common`, which all commands use;
`source_checks`, which checks the source before Spark starts; and `tagging_in_child`, whose code runs in child processes.
"""
