"""The commands of `entitymill`: one module per command. `parser()` returns the command's parser, `main()` its exit code.

`main(None)` parses the command line of this process. Three modules are not commands: `common`, which all commands use, and
`benchmark_child` and `tagging_child`, which run in child processes.
"""
