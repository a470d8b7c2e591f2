//! Small dense systems of linear equations.

/// Returns the x with `matrix x = right`, by elimination with partial pivoting; `None` when the matrix is
/// singular to 12 digits. `matrix` is square, given by rows, and has as many rows as `right`.
///
/// Rows and then columns are first scaled to a largest entry of about 1: whether a covariate is measured in
/// cents or in millions must not decide whether there is an answer.
pub(crate) fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let n = right.len();
    for (row, right) in matrix.iter_mut().zip(&mut right) {
        let scale = power_of_two(row.iter().copied())?;
        row.iter_mut().for_each(|entry| *entry /= scale);
        *right /= scale;
    }
    let mut of_columns = Vec::new();
    for column in 0..n {
        let scale = power_of_two(matrix.iter().map(|row| row[column]))?;
        matrix.iter_mut().for_each(|row| row[column] /= scale);
        of_columns.push(scale);
    }
    for column in 0..n {
        let pivot =
            (column..n).max_by(|&i, &j| matrix[i][column].abs().total_cmp(&matrix[j][column].abs()))?;
        if matrix[pivot][column].abs() <= 1e-12 {
            return None;
        }
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        let (done, below) = matrix.split_at_mut(column + 1);
        let pivot_row = &done[column];
        for (offset, row) in below.iter_mut().enumerate() {
            let factor = row[column] / pivot_row[column];
            for (entry, pivot_entry) in row.iter_mut().zip(pivot_row).skip(column) {
                *entry -= factor * pivot_entry;
            }
            right[column + 1 + offset] -= factor * right[column];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| matrix[row][k] * right[k]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    right.iter_mut().zip(of_columns).for_each(|(x, scale)| *x /= scale);
    Some(right)
}

/// Returns a power of two close to the largest entry, so that division by it is exact; `None` where all are 0.
fn power_of_two(entries: impl Iterator<Item = f64>) -> Option<f64> {
    let largest = entries.fold(0.0, |most: f64, entry| most.max(entry.abs()));
    (largest > 0.0 && largest.is_finite()).then(|| largest.log2().round().exp2())
}

#[cfg(test)]
mod tests {
    use super::solve;

    #[test]
    fn solves_with_a_zero_pivot() {
        let matrix = vec![vec![0.0, 2.0], vec![3.0, 1.0]];
        assert_eq!(solve(matrix, vec![4.0, 5.0]), Some(vec![1.0, 2.0]));
    }

    /// The same equations with the second unknown in units of 10^-9 and of 10^9, and the rows likewise.
    #[test]
    fn units_of_measure_do_not_make_a_matrix_singular() {
        for unit in [1e-9, 1.0, 1e9] {
            let matrix = vec![vec![2.0, unit], vec![unit, 3.0 * unit * unit]];
            let solved = solve(matrix, vec![3.0, 4.0 * unit]).unwrap();
            assert!(
                (solved[0] - 1.0).abs() < 1e-14 && (solved[1] * unit - 1.0).abs() < 1e-14,
                "{unit}: {solved:?}"
            );
        }
    }

    #[test]
    fn a_singular_matrix_has_no_solution() {
        assert_eq!(solve(vec![vec![1.0, 2.0], vec![2.0, 4.0]], vec![1.0, 1.0]), None);
    }
}
