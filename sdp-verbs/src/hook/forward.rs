//! Methods of a wrapper that pass on what they are given, and nothing else.

/// Inside an `impl` of a trait of verbs: the named methods of that trait, passed on.
///
/// What a wrapper does not change it names here; what it changes it writes out.
macro_rules! forward {
    ($of:ident: $($name:ident),+ $(,)?) => { $( forward!(@$of $name); )+ };

    (# $name:ident($($argument:ident: $of:ty),*) $(-> $result:ty)?) => {
        fn $name(&self $(, $argument: $of)*) $(-> $result)? {
            self.inner.$name($($argument),*)
        }
    };

    (@Provider name) => { forward!(# name() -> &'static str); };
    (@Provider device) => { forward!(# device() -> Option<&str>); };
    (@Provider caps) => { forward!(# caps() -> crate::Caps); };
    (@Provider limits) => { forward!(# limits() -> crate::Limits); };
    (@Provider has_address) => {
        forward!(# has_address(local: std::net::SocketAddr) -> Result<bool, crate::VerbsError>);
    };
    (@Provider create_comp_channel) => {
        forward!(# create_comp_channel() -> Result<Arc<dyn crate::CompChannel>, crate::VerbsError>);
    };
    (@Provider alloc_registered) => {
        forward!(#
            alloc_registered(len: usize) -> Result<Arc<dyn crate::MemoryRegion>, crate::VerbsError>
        );
    };
    (@Provider alloc_window) => {
        forward!(# alloc_window() -> Result<Box<dyn crate::MemoryWindow>, crate::VerbsError>);
    };

    (@EventChannel fd) => { forward!(# fd() -> std::os::fd::BorrowedFd<'_>); };
    (@EventChannel next_timeout) => { forward!(# next_timeout() -> Option<std::time::Duration>); };

    (@CmId token) => { forward!(# token() -> crate::CmToken); };
    (@CmId bind) => { forward!(# bind(request: crate::BindRequest) -> Result<(), crate::VerbsError>); };
    (@CmId adopt) => {
        forward!(#
            adopt(request: crate::BindRequest, holder: std::os::fd::BorrowedFd<'_>)
                -> Result<(), crate::VerbsError>
        );
    };
    (@CmId listen) => { forward!(# listen(backlog: u32) -> Result<(), crate::VerbsError>); };
    (@CmId resolve) => {
        forward!(#
            resolve(dst: std::net::SocketAddr, timeout: std::time::Duration)
                -> Result<(), crate::VerbsError>
        );
    };
    (@CmId connect) => { forward!(# connect(private_data: &[u8]) -> Result<(), crate::VerbsError>); };
    (@CmId accept) => { forward!(# accept(private_data: &[u8]) -> Result<(), crate::VerbsError>); };
    (@CmId establish) => { forward!(# establish() -> Result<(), crate::VerbsError>); };
    (@CmId reject) => { forward!(# reject(private_data: &[u8]) -> Result<(), crate::VerbsError>); };
    (@CmId local_addr) => { forward!(# local_addr() -> Option<std::net::SocketAddr>); };
    (@CmId peer_addr) => { forward!(# peer_addr() -> Option<std::net::SocketAddr>); };

    (@QueuePair num) => { forward!(# num() -> crate::QpNum); };
    (@QueuePair alloc_recv) => {
        forward!(# alloc_recv(len: usize) -> Result<crate::RecvBuf, crate::VerbsError>);
    };
    (@QueuePair keep_send) => {
        forward!(# keep_send(len: usize) -> Result<(), crate::VerbsError>);
    };
    (@QueuePair reserve_send) => {
        forward!(# reserve_send(len: usize) -> Result<crate::SendBuf, crate::PostError>);
    };
    (@QueuePair unreserve_send) => { forward!(# unreserve_send(buf: crate::SendBuf)); };
    (@QueuePair bind) => {
        forward!(#
            bind(
                wr_id: crate::WrId,
                flags: crate::SendFlags,
                window: &dyn crate::MemoryWindow,
                binding: crate::Binding
            ) -> Result<crate::Rkey, crate::PostError>
        );
    };
    (@QueuePair queued_len) => { forward!(# queued_len() -> usize); };
    (@QueuePair heap_reachable) => { forward!(# heap_reachable() -> Result<(), String>); };
    (@QueuePair has_refused_peer) => { forward!(# has_refused_peer() -> bool); };
    (@QueuePair lend_token_socket) => {
        forward!(#
            lend_token_socket(socket: std::os::fd::BorrowedFd<'_>) -> Result<(), crate::VerbsError>
        );
    };
    (@QueuePair set_error) => { forward!(# set_error()); };

    (@CompletionQueue arm) => { forward!(# arm(who: crate::ArmFor) -> crate::ArmToken); };
    (@CompletionQueue disarm_channel) => { forward!(# disarm_channel()); };
    (@CompletionQueue recall_tokens) => { forward!(# recall_tokens() -> u32); };
    (@CompletionQueue wait) => {
        forward!(#
            wait(token: crate::ArmToken, timeout: Option<std::time::Duration>)
                -> std::io::Result<crate::Wake>
        );
    };
    (@CompletionQueue wake) => { forward!(# wake()); };

    (@MemoryRegion addr) => { forward!(# addr() -> std::ptr::NonNull<u8>); };
    (@MemoryRegion len) => { forward!(# len() -> usize); };
    (@MemoryRegion lkey) => { forward!(# lkey() -> crate::Lkey); };
    (@MemoryRegion rkey) => { forward!(# rkey() -> Option<crate::Rkey>); };
    (@MemoryRegion access) => { forward!(# access() -> crate::Access); };
}

pub(super) use forward;
