"""The commands of `entitymill`: one module per command. `parser()` returns the command's parser, `main()` its exit code.

`main(None)` parses the command line of this process. Two modules are not commands: `common`, which all commands use, and
`tagging_child`, whose code runs in child processes.
"""
