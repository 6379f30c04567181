//! The only packet-pointer arithmetic.
//!
//! A [`Cursor`] borrows the context, and whatever moves the packet's edges takes the context mutably, so a header
//! reference that outlived a move does not compile.

use core::{ffi::c_void, marker::PhantomData};

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_xdp_get_buff_len,
    programs::{TcContext, XdpContext},
};

use crate::settings;

/// A context with a packet, XDP's or tc's, of which the first buffer can be read and written.
pub trait PacketData: EbpfContext {
    fn data(&self) -> usize;
    fn data_end(&self) -> usize;
}

impl PacketData for XdpContext {
    #[inline(always)]
    fn data(&self) -> usize {
        XdpContext::data(self)
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        XdpContext::data_end(self)
    }
}

impl PacketData for TcContext {
    #[inline(always)]
    fn data(&self) -> usize {
        TcContext::data(self)
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        TcContext::data_end(self)
    }
}

/// Reads headers.
pub struct Cursor<'a> {
    context: *mut c_void,
    data: usize,
    end: usize,
    packet: PhantomData<&'a [u8]>,
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    pub fn new(context: &'a impl PacketData) -> Self {
        Self { context: context.as_ptr(), data: context.data(), end: context.data_end(), packet: PhantomData }
    }

    /// Length of the first buffer.
    #[inline(always)]
    pub fn first_len(&self) -> usize {
        self.end - self.data
    }

    /// Length of an XDP frame, with all its buffers.
    #[inline(always)]
    pub fn whole_len(&self) -> usize {
        if !settings::multi_buffer() {
            return self.first_len();
        }
        // SAFETY: a live context: the cursor borrows it.
        unsafe { bpf_xdp_get_buff_len(self.context.cast()) as usize }
    }

    /// Length of an XDP frame, as far as it matters to a packet that ends at `packet_end`: that of the first buffer, if the
    /// packet ends in it. Only of others the kernel is asked how long all buffers are.
    #[inline(always)]
    pub fn frame_len(&self, packet_end: usize) -> usize {
        let first = self.first_len();
        if packet_end <= first { first } else { self.whole_len() }
    }

    /// The `N` bytes at `offset`, or `None` if the first buffer ends before them.
    #[inline(always)]
    pub fn at<const N: usize>(&self, offset: usize) -> Option<&'a [u8; N]> {
        bounded(self.data, self.end, offset).map(|start: *mut [u8; N]| {
            // SAFETY: the bytes lie inside the packet, which stays where it is while the context is borrowed.
            unsafe { &*start }
        })
    }
}

/// Writes headers.
pub struct CursorMut<'a> {
    data: usize,
    end: usize,
    packet: PhantomData<&'a mut [u8]>,
}

impl<'a> CursorMut<'a> {
    #[inline(always)]
    pub fn new(context: &'a mut impl PacketData) -> Self {
        Self { data: context.data(), end: context.data_end(), packet: PhantomData }
    }

    /// The `N` bytes at `offset`, or `None` if the first buffer ends before them.
    #[inline(always)]
    pub fn at<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        bounded(self.data, self.end, offset).map(|start: *mut [u8; N]| {
            // SAFETY: the bytes lie inside the packet, and the context is borrowed mutably through `self`.
            unsafe { &mut *start }
        })
    }

    /// The value at `offset`, in as few loads as it has words; `None` if the first buffer ends before that.
    #[inline(always)]
    pub fn read<T: Words>(&self, offset: usize) -> Option<T> {
        bounded(self.data, self.end, offset).map(|start: *mut T| {
            // SAFETY: the bytes lie inside the packet, which stays where it is while the context is borrowed.
            unsafe { start.read_unaligned() }
        })
    }

    /// From `len` bytes on: offsets after that are constants where only this one was not, as the verifier likes it.
    #[inline(always)]
    pub fn skip(self, len: usize) -> Self {
        Self { data: self.data + len, ..self }
    }

    /// Writes a value at `offset`, in as few stores as it has words; `None` if the first buffer ends before it.
    #[inline(always)]
    pub fn write<T: Words>(&mut self, offset: usize, value: T) -> Option<()> {
        bounded(self.data, self.end, offset).map(|start: *mut T| {
            // SAFETY: the bytes lie inside the packet, and the context is borrowed mutably through `self`.
            unsafe { start.write_unaligned(value) }
        })
    }
}

/// What may be read and written as it lies in memory.
pub trait Words: Copy {}

impl Words for u16 {}
impl Words for u32 {}
impl Words for u64 {}
impl<W: Words, const N: usize> Words for [W; N] {}

#[inline(always)]
fn bounded<T>(data: usize, end: usize, offset: usize) -> Option<*mut T> {
    let start = data + offset;
    if start + size_of::<T>() > end { None } else { Some(start as *mut T) }
}
