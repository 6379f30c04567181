//! BPF instructions by hand: the lab's few tiny programs need no compiler on the host.

use std::collections::HashMap;

/// One instruction, as `struct bpf_insn` in `linux/bpf.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register, `R0` to `R10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// How much a load or store moves: the size bits of its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Width {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
}

const LOAD: u8 = 0x61;
const STORE: u8 = 0x63;
const MOVE_IMMEDIATE: u8 = 0xb7;
const MOVE: u8 = 0xbf;
const ADD_IMMEDIATE: u8 = 0x07;
const AND_IMMEDIATE: u8 = 0x57;
const NEGATE: u8 = 0x87;
const JUMP: u8 = 0x05;
const JUMP_IF_NOT_EQUAL_IMMEDIATE: u8 = 0x55;
const JUMP_IF_GREATER: u8 = 0x2d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// Collects instructions; jumps name a label that may come later.
#[derive(Debug, Default)]
pub struct Assembler {
    instructions: Vec<Instruction>,
    labels: HashMap<&'static str, usize>,
    jumps: Vec<(usize, &'static str)>,
}

impl Assembler {
    /// `to = value`
    pub fn set(&mut self, to: Register, value: i32) -> &mut Self {
        self.push(MOVE_IMMEDIATE, to, Register::R0, 0, value)
    }

    /// `to = from`
    pub fn copy(&mut self, to: Register, from: Register) -> &mut Self {
        self.push(MOVE, to, from, 0, 0)
    }

    /// `to += value`
    pub fn add(&mut self, to: Register, value: i32) -> &mut Self {
        self.push(ADD_IMMEDIATE, to, Register::R0, 0, value)
    }

    /// `to &= value`
    pub fn and(&mut self, to: Register, value: i32) -> &mut Self {
        self.push(AND_IMMEDIATE, to, Register::R0, 0, value)
    }

    /// `to = -to`
    pub fn negate(&mut self, to: Register) -> &mut Self {
        self.push(NEGATE, to, Register::R0, 0, 0)
    }

    /// `to = *(width *)(base + offset)`
    pub fn load(&mut self, width: Width, to: Register, base: Register, offset: i16) -> &mut Self {
        self.push(LOAD | width as u8, to, base, offset, 0)
    }

    /// `*(width *)(base + offset) = from`
    pub fn store(&mut self, width: Width, base: Register, offset: i16, from: Register) -> &mut Self {
        self.push(STORE | width as u8, base, from, offset, 0)
    }

    /// `goto label`
    pub fn jump(&mut self, label: &'static str) -> &mut Self {
        self.jumps.push((self.instructions.len(), label));
        self.push(JUMP, Register::R0, Register::R0, 0, 0)
    }

    /// `if left != value goto label`
    pub fn unless_equal(&mut self, left: Register, value: i32, label: &'static str) -> &mut Self {
        self.jumps.push((self.instructions.len(), label));
        self.push(JUMP_IF_NOT_EQUAL_IMMEDIATE, left, Register::R0, 0, value)
    }

    /// `if left > right goto label`
    pub fn if_greater(&mut self, left: Register, right: Register, label: &'static str) -> &mut Self {
        self.jumps.push((self.instructions.len(), label));
        self.push(JUMP_IF_GREATER, left, right, 0, 0)
    }

    /// `r0 = helper(r1..r5)`
    pub fn call(&mut self, helper: i32) -> &mut Self {
        self.push(CALL, Register::R0, Register::R0, 0, helper)
    }

    /// `return value`
    pub fn exit(&mut self, value: i32) -> &mut Self {
        self.set(Register::R0, value).exit_r0()
    }

    /// `return r0`
    pub fn exit_r0(&mut self) -> &mut Self {
        self.push(EXIT, Register::R0, Register::R0, 0, 0)
    }

    /// The next instruction is what jumps to `name` go to.
    pub fn label(&mut self, name: &'static str) -> &mut Self {
        self.labels.insert(name, self.instructions.len());
        self
    }

    /// The program, its jumps resolved.
    ///
    /// # Panics
    ///
    /// If a jump names a label that does not exist: a bug in the program.
    #[must_use]
    pub fn finish(&self) -> Vec<Instruction> {
        let mut instructions = self.instructions.clone();
        for (from, label) in &self.jumps {
            let to = self.labels.get(label).unwrap_or_else(|| panic!("no label {label}"));
            // A jump counts from the instruction after it.
            let distance = *to as i64 - *from as i64 - 1;
            instructions[*from].offset = i16::try_from(distance).expect("programs here are short");
        }
        instructions
    }

    fn push(&mut self, code: u8, to: Register, from: Register, offset: i16, immediate: i32) -> &mut Self {
        self.instructions.push(Instruction {
            code,
            registers: to as u8 | (from as u8) << 4,
            offset,
            immediate,
        });
        self
    }
}
