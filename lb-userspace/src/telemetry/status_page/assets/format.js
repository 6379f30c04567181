'use strict';
// Numbers as people read them.

const NONE = '–';

/** 1234 as "1.23 k". Three digits are all that one reads of a number that changes. */
function scaled(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const steps = ['', ' k', ' M', ' G', ' T', ' P'];
  let step = 0;
  while (value >= 999.5 && step < steps.length - 1) {
    value /= 1000;
    step += 1;
  }
  const whole = value >= 99.95 || (step === 0 && Number.isInteger(value));
  return value.toFixed(whole ? 0 : value >= 9.995 ? 1 : 2) + steps[step];
}

/** All digits, in groups. */
function exact(value) {
  return value === null || value === undefined ? NONE : value.toLocaleString('en').replaceAll(',', '\u202f');
}

function percent(part) {
  return `${(part * 100).toFixed(part > 0 && part < 0.0995 ? 1 : 0)} %`;
}

function duration(seconds) {
  if (seconds < 1) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** "1 backend", "2 backends". */
function counted(count, thing) {
  return `${exact(count)} ${thing}${count === 1 ? '' : 's'}`;
}
