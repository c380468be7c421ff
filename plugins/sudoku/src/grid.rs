//! Grids, and the search for what completes them.

use procedural::Stream;

/// A grid of `side * side` boxes, each of `side * side` cells.
#[derive(Clone, Debug)]
pub struct Grid {
    pub side: usize,
    /// Row by row; 0 is a blank.
    pub cells: Vec<u8>,
}

impl Grid {
    pub fn read(rows: &[String]) -> Option<Self> {
        let side = match rows.len() {
            4 => 2,
            9 => 3,
            _ => return None,
        };
        let mut cells = Vec::new();
        for row in rows {
            for c in row.chars() {
                cells.push(if c == '.' { 0 } else { u8::try_from(c.to_digit(10)?).ok()? });
            }
        }
        let fits =
            cells.len() == rows.len() * rows.len() && cells.iter().all(|digit| usize::from(*digit) <= rows.len());
        fits.then_some(Self { side, cells })
    }

    pub fn size(&self) -> usize {
        self.side * self.side
    }

    pub fn rows(&self, between: &str) -> Vec<String> {
        let cell = |digit: &u8| if *digit == 0 { ".".to_owned() } else { digit.to_string() };
        self.cells.chunks(self.size()).map(|row| row.iter().map(cell).collect::<Vec<_>>().join(between)).collect()
    }

    pub fn line(&self) -> String {
        self.rows("").concat()
    }

    /// A random complete grid: nearly always found at once.
    pub fn complete(side: usize, random: &mut Stream) -> Option<Self> {
        let mut search = Search::new(&Self { side, cells: vec![0; side.pow(4)] }, 1, Some(random));
        search.run();
        search.found.pop()
    }

    /// At most `limit` ways to complete it.
    pub fn solutions(&self, limit: usize) -> Vec<Self> {
        if self.conflict().is_some() {
            return Vec::new();
        }
        let mut search = Search::new(self, limit, None);
        search.run();
        search.found
    }

    /// The blank with the fewest candidates, and those, as a set of bits.
    pub fn narrowest(&self) -> Option<(usize, u16)> {
        Search::new(self, 1, None).narrowest()
    }

    /// The rows, columns and boxes that a cell is in.
    fn units(&self, cell: usize) -> [usize; 3] {
        let n = self.size();
        let (row, column) = (cell / n, cell % n);
        [row, n + column, 2 * n + row / self.side * self.side + column / self.side]
    }

    /// The first digit that stands twice in a row, a column or a box.
    pub fn conflict(&self) -> Option<String> {
        let n = self.size();
        let mut seen = vec![0_u16; 3 * n];
        for (cell, digit) in self.cells.iter().enumerate().filter(|(_, digit)| **digit != 0) {
            for unit in self.units(cell) {
                if seen[unit] >> digit & 1 == 1 {
                    let kind = ["row", "column", "box"][unit / n];
                    return Some(format!("{digit} stands twice in {kind} {}", unit % n + 1));
                }
                seen[unit] |= 1 << digit;
            }
        }
        None
    }
}

/// A search in depth, always at the blank with the fewest candidates.
struct Search<'a> {
    grid: Grid,
    /// The digits that stand in each unit.
    used: Vec<u16>,
    limit: usize,
    found: Vec<Grid>,
    random: Option<&'a mut Stream>,
}

impl<'a> Search<'a> {
    fn new(grid: &Grid, limit: usize, random: Option<&'a mut Stream>) -> Self {
        let mut used = vec![0; 3 * grid.size()];
        for (cell, digit) in grid.cells.iter().enumerate().filter(|(_, digit)| **digit != 0) {
            for unit in grid.units(cell) {
                used[unit] |= 1 << digit;
            }
        }
        Self { grid: grid.clone(), used, limit, found: Vec::new(), random }
    }

    fn narrowest(&self) -> Option<(usize, u16)> {
        let all = (1_u16 << (self.grid.size() + 1)) - 2;
        let mut best: Option<(usize, u16)> = None;
        for cell in (0..self.grid.cells.len()).filter(|cell| self.grid.cells[*cell] == 0) {
            let [row, column, square] = self.grid.units(cell);
            let candidates = all & !(self.used[row] | self.used[column] | self.used[square]);
            if best.is_none_or(|(_, fewest)| candidates.count_ones() < fewest.count_ones()) {
                best = Some((cell, candidates));
                if candidates.count_ones() < 2 {
                    break;
                }
            }
        }
        best
    }

    fn run(&mut self) {
        let Some((cell, candidates)) = self.narrowest() else {
            self.found.push(self.grid.clone());
            return;
        };
        let mut digits: Vec<u8> = (1..=self.grid.size() as u8).filter(|digit| candidates >> digit & 1 == 1).collect();
        if let Some(random) = &mut self.random {
            random.shuffle(&mut digits);
        }
        let units = self.grid.units(cell);
        for digit in digits {
            self.grid.cells[cell] = digit;
            units.iter().for_each(|unit| self.used[*unit] |= 1 << digit);
            self.run();
            self.grid.cells[cell] = 0;
            units.iter().for_each(|unit| self.used[*unit] &= !(1 << digit));
            if self.found.len() == self.limit {
                return;
            }
        }
    }
}
