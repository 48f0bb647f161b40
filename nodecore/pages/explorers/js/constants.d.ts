// What Python writes into each bundle as constants.js; constants.py says where each is at home.

export const CLASS_COLOURS: string[];
export const CLASS_MARKERS: string[];
export const CROSSING_COLOUR: string;
export const MAP_SHADES: string[];
export const MAP_LOWEST: number;
export const MAP_DARK: number;
export const SAFETY: number;
export const MIN_FACTOR: number;
export const MAX_FACTOR: number;
export const MAX_TRIED: number;
export const EXACT_SOLVER: string;
export const EXACT_RTOL: number;
export const EULER: Tableau;
export const CHORDS: number;
export const MOST_CHORDS: number;
export const MARKED_STEPS: number;
export const SAME_STEP: number;
