# Two devices that nobody names.
unset SDP_RDMA_DEVICE
# The first one finds no neighbour known.
ip neigh flush all
"$TEST" --include-ignored --test-threads=1 --exact an_unknown_neighbour_is_found
neighbours_known
"$TEST" --include-ignored --test-threads=1 --skip an_unknown_neighbour_is_found
