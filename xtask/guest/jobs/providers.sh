# Which providers a listener is on, by the program's choice, by the environment's, and without one.
"$TEST" --include-ignored --test-threads=1
for provider in host rdma; do
    SDP_PROVIDER=$provider "$TEST" --include-ignored --test-threads=1
done
