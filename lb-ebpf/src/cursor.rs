//! The only packet-pointer arithmetic.
//!
//! A [`Cursor`] borrows the context, and whatever moves the packet's edges takes the context mutably, so a header
//! reference that outlived a move does not compile.

use core::marker::PhantomData;

use aya_ebpf::programs::{TcContext, XdpContext};

/// A context with a linear packet: XDP's, or tc's.
pub trait PacketData {
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
    data: usize,
    end: usize,
    packet: PhantomData<&'a [u8]>,
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    pub fn new(context: &'a impl PacketData) -> Self {
        Self { data: context.data(), end: context.data_end(), packet: PhantomData }
    }

    /// Bytes from the start of the frame to its end.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.end - self.data
    }

    /// The `N` bytes at `offset`, or `None` if the frame ends before them.
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

    /// The `N` bytes at `offset`, or `None` if the frame ends before them.
    #[inline(always)]
    pub fn at<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        bounded(self.data, self.end, offset).map(|start: *mut [u8; N]| {
            // SAFETY: the bytes lie inside the packet, and the context is borrowed mutably through `self`.
            unsafe { &mut *start }
        })
    }

    /// The value at `offset`, in as few loads as it has words; `None` if the frame ends before its end.
    #[inline(always)]
    pub fn read<T: Words>(&self, offset: usize) -> Option<T> {
        bounded(self.data, self.end, offset).map(|start: *mut T| {
            // SAFETY: the bytes lie inside the packet, which stays where it is while the context is borrowed.
            unsafe { start.read_unaligned() }
        })
    }

    /// Writes a value at `offset`, in as few stores as it has words; `None` if the frame ends before it.
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
