"""Where the job runs: for trials on this machine. Nothing of it is needed to use the packages."""
