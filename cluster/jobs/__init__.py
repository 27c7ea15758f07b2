"""Jobs: a run, or the preparation of its data, that is handed to a cluster (or to this machine) and watched from afar.

`submit` checks the whole experiment, packs the code, and hands both over; the job itself is the ordinary command line.
"""
