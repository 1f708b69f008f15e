# A peer tries old keys, as a user without any right: with memory windows where the device has them,
# and without. Nothing is left in the device.
rdma resource show >/mnt/share/before.txt
as_nobody "$TEST" --include-ignored --test-threads=1
case $SDP_VM_DEVICE in
rxe*) SDP_TEST_RDMA_WINDOWS=0 as_nobody "$TEST" --include-ignored --test-threads=1 ;;
esac
nothing_is_left
