"""Pure decisions: functions of values, with no I/O, no clock, no randomness and no logging."""
