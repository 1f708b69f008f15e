# The program built here runs in the guest and carries bytes unchanged on the provider that needs no
# device.
"$SDP" perf bw --verify --conns 2 --bytes 16M --provider host
"$SDP" perf lat --verify --seconds 0.5 --provider host
