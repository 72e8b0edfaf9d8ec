//! A small set of combinations in which every two levels of every two factors meet.

/// Rows of level numbers, one for each factor, such that any two levels of any two factors stand together in some row.
///
/// Greedy and deterministic: the same counts give the same rows.
pub fn rows(levels: &[usize]) -> Vec<Vec<usize>> {
    let mut open: Vec<(usize, usize, usize, usize)> = Vec::new();
    for a in 0..levels.len() {
        for b in a + 1..levels.len() {
            for i in 0..levels[a] {
                for j in 0..levels[b] {
                    open.push((a, i, b, j));
                }
            }
        }
    }
    let mut rows = Vec::new();
    while let Some(&(a, i, b, j)) = open.first() {
        let mut row: Vec<Option<usize>> = vec![None; levels.len()];
        row[a] = Some(i);
        row[b] = Some(j);
        for factor in 0..levels.len() {
            if row[factor].is_some() {
                continue;
            }
            let gain = |level: usize| {
                open.iter()
                    .filter(|&&(a, i, b, j)| {
                        (a == factor && i == level && row[b].is_none_or(|other| other == j))
                            || (b == factor && j == level && row[a].is_none_or(|other| other == i))
                    })
                    .count()
            };
            // The first of the best, so that the choice does not depend on the iterator.
            let best = (0..levels[factor]).fold((0, None), |(most, best), level| {
                let gain = gain(level);
                if best.is_none() || gain > most {
                    (gain, Some(level))
                } else {
                    (most, best)
                }
            });
            row[factor] = best.1;
        }
        let row: Vec<usize> = row.into_iter().map(|level| level.unwrap_or(0)).collect();
        open.retain(|&(a, i, b, j)| row[a] != i || row[b] != j);
        rows.push(row);
    }
    rows
}

/// Every combination.
pub fn product(levels: &[usize]) -> Vec<Vec<usize>> {
    levels.iter().fold(vec![Vec::new()], |rows, count| {
        rows.iter()
            .flat_map(|row| {
                (0..*count).map(move |level| {
                    let mut row = row.clone();
                    row.push(level);
                    row
                })
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_levels_meets_in_some_row() {
        let levels = [3, 3, 2, 2, 2];
        let rows = rows(&levels);
        for a in 0..levels.len() {
            for b in a + 1..levels.len() {
                for i in 0..levels[a] {
                    for j in 0..levels[b] {
                        assert!(
                            rows.iter().any(|row| row[a] == i && row[b] == j),
                            "level {i} of {a} never meets level {j} of {b}"
                        );
                    }
                }
            }
        }
        assert!(rows.len() < 15, "{} rows is no small set", rows.len());
        assert_eq!(product(&levels).len(), 72);
    }
}
