"""The rules: functions of values and ``now``. Nothing here reads, writes, waits or draws lots."""
