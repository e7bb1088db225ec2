"""The machine: files, console, packages, CPU, signals."""
