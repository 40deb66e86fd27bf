"""Look after jobs where they run, and fetch what they left: this machine, a cluster, VMs, Blob storage."""
