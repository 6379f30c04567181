//! Running programs: on a buffer, and on live frames.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use super::bpf;

const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// `union bpf_attr` as BPF_PROG_TEST_RUN reads it.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _padding: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// `struct __sk_buff`, as far as test runs take it and give it back.
#[repr(C)]
#[derive(Default)]
struct SkBuff {
    _front: [u32; 2],
    mark: u32,
    _middle: [[u32; 20]; 2],
    _sk_end: u32,
    gso_size: u32,
    _end: [u32; 3],
}

/// What a classifier made of a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Classified {
    /// `TC_ACT_*`
    pub code: i32,
    pub frame: Vec<u8>,
    /// The packet's mark afterwards.
    pub mark: u32,
}

/// Runs a classifier of tc once on a frame that seems to leave by the namespace's `lo`, with a mark, and to be cut into
/// segments of so many bytes if that is not 0.
///
/// # Errors
///
/// The kernel's.
pub(in crate::packet) fn classify(
    program: &OwnedFd,
    frame: &[u8],
    mark: u32,
    gso_size: u32,
) -> io::Result<Classified> {
    let mut output = vec![0; frame.len() + 64];
    let given = SkBuff { mark, gso_size, ..SkBuff::default() };
    let mut left = SkBuff::default();
    let mut attributes = TestRun {
        program: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_size_out: output.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: output.as_mut_ptr() as u64,
        ctx_size_in: size_of::<SkBuff>() as u32,
        ctx_size_out: size_of::<SkBuff>() as u32,
        ctx_in: &raw const given as u64,
        ctx_out: &raw mut left as u64,
        repeat: 1,
        ..TestRun::default()
    };
    // SAFETY: the attributes are what BPF_PROG_TEST_RUN reads; both buffers and both contexts live through the call and are
    // as long as stated.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut attributes) }?;
    output.truncate(attributes.data_size_out as usize);
    Ok(Classified { code: attributes.retval.cast_signed(), frame: output, mark: left.mark })
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Run {
    /// The program's code, of the last time if it ran several times.
    pub(crate) code: u32,
    pub(crate) frame: Vec<u8>,
    /// Average over all times, in whole nanoseconds, as the kernel measured it.
    pub(crate) nanoseconds: u32,
}

/// Runs a program once on `frame`; returns its code and the frame it left. `metadata` bytes before the frame take that
/// much of its headroom. The frame seems to come in on the namespace's `lo`.
///
/// # Errors
///
/// The kernel's, which takes no frame shorter than an Ethernet header or longer than a page with its reserves.
pub(in crate::packet) fn test_run(
    program: &OwnedFd,
    frame: &[u8],
    metadata: usize,
) -> io::Result<(u32, Vec<u8>)> {
    let mut input = vec![0; metadata];
    input.extend_from_slice(frame);
    let run = run(program, &input, XdpMd { data: metadata as u32, ..XdpMd::default() }, 1)?;
    let mut output = run.frame;
    Ok((run.code, output.split_off(metadata.min(output.len()))))
}

/// Runs a program on `frame` and then `times - 1` times on what it left behind, without a pause.
///
/// # Errors
///
/// As [`test_run`].
pub(crate) fn test_run_repeatedly(program: &OwnedFd, frame: &[u8], times: u32) -> io::Result<Run> {
    run(program, frame, XdpMd::default(), times)
}

/// Runs a program once on `frame` as if it had come in at `interface` of this thread's network namespace, which runs a
/// program in native mode.
///
/// # Errors
///
/// As [`test_run`].
pub(crate) fn test_run_at(program: &OwnedFd, frame: &[u8], interface: u32) -> io::Result<Run> {
    run(program, frame, XdpMd { ingress_ifindex: interface, ..XdpMd::default() }, 1)
}

/// `context` says where the frame begins and where it came in.
fn run(program: &OwnedFd, input: &[u8], mut context: XdpMd, repeat: u32) -> io::Result<Run> {
    // Room for any outer header. An IPv6 one is the longest.
    let mut output = vec![0; input.len() + 64];
    context.data_end = input.len() as u32;
    let mut attributes = TestRun {
        program: program.as_raw_fd() as u32,
        data_size_in: input.len() as u32,
        data_size_out: output.len() as u32,
        data_in: input.as_ptr() as u64,
        data_out: output.as_mut_ptr() as u64,
        repeat,
        ..TestRun::default()
    };
    if context.data > 0 || context.ingress_ifindex > 0 {
        attributes.ctx_size_in = size_of::<XdpMd>() as u32;
        attributes.ctx_in = &raw mut context as u64;
    }
    // SAFETY: the attributes are what BPF_PROG_TEST_RUN reads; both buffers and the context live through the call and
    // are as long as stated.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut attributes) }?;
    output.truncate(attributes.data_size_out as usize);
    Ok(Run { code: attributes.retval, frame: output, nanoseconds: attributes.duration })
}

/// Runs an XDP program on `times` copies of `frame` as if they had come in at `interface` of this thread's network
/// namespace, and does with each what the program says (kernel commit b530e9e1063e).
///
/// # Errors
///
/// What the kernel says: EINVAL before Linux 5.18.
pub(crate) fn send_live_frames(
    program: &OwnedFd,
    frame: &[u8],
    times: u32,
    interface: u32,
) -> io::Result<()> {
    let context = XdpMd { data_end: frame.len() as u32, ingress_ifindex: interface, ..XdpMd::default() };
    let mut attributes = TestRun {
        program: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat: times,
        ctx_size_in: size_of::<XdpMd>() as u32,
        ctx_in: &raw const context as u64,
        flags: BPF_F_TEST_XDP_LIVE_FRAMES,
        ..TestRun::default()
    };
    // SAFETY: the attributes are what BPF_PROG_TEST_RUN reads; frame and context live through the call and are as long as
    // stated, and nothing but the attributes is written.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut attributes) }
}
