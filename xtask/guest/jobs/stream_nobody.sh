# The socket test bodies as a user without any right who may lock 8 MiB. Nothing is left in the
# device.
rdma resource show >/mnt/share/before.txt
as_nobody "$TEST" --include-ignored --test-threads=1
nothing_is_left
