"""The command `ess`: one module per group of commands, errors and exit codes in `errors`."""
