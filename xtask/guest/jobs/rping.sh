# Verified RDMA reads and writes between both ends on one machine.
rping_here 50
