"""The job: its options, its plan, its Beam graph, and the commands around it."""
