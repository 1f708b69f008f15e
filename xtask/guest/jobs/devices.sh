# Two devices that nobody names.
unset SDP_RDMA_DEVICE
"$TEST" --include-ignored --test-threads=1
