# A user who may lock 8 MiB and has locked all of them.
rdma resource show >/mnt/share/before.txt
as_nobody "$TEST" --include-ignored --test-threads=1
nothing_is_left
