"""Parts of the supervisor process beside its sessions: messages to the host, held calls, services, the watchdog."""
