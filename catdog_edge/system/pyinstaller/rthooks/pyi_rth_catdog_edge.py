"""Before the program itself: run as a child process, where it was started as one."""

from catdog_edge.system.child_process import freeze_support

freeze_support()
