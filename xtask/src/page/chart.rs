//! Charts, as SVG inside a page.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Width and height.
const SIZE: (u32, u32) = (720, 420);
const COLOURS: [RGBColor; 10] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(127, 127, 127),
    RGBColor(23, 190, 207),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(188, 189, 34),
];
const FONT: &str = "sans-serif";

/// Lines over a logarithmic axis.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    /// Whether the horizontal axis counts bytes.
    pub(crate) bytes: bool,
    pub(crate) lines: Vec<Line>,
}

/// One line.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// In ascending order of the first value.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Chart {
    /// The drawing; none without two points to join.
    ///
    /// # Errors
    /// When the drawing library refuses the values.
    pub(crate) fn svg(&self) -> Result<Option<String>> {
        let all = || self.lines.iter().flat_map(|line| line.points.iter());
        let low = all().map(|point| point.0).fold(f64::INFINITY, f64::min);
        let high = all().map(|point| point.0).fold(0.0, f64::max);
        let top = all().map(|point| point.1).fold(0.0, f64::max) * 1.1;
        // False without points, and for one value only.
        if !(low < high && top > 0.0) {
            return Ok(None);
        }
        let mut svg = String::new();
        self.draw(&mut svg, low..high, top)
            .map_err(|error| anyhow!("cannot draw {}: {error}", self.title))?;
        Ok(Some(svg))
    }

    fn draw(
        &self,
        svg: &mut String,
        across: std::ops::Range<f64>,
        top: f64,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, (FONT, 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(across.log_scale().base(2.0), 0.0..top)?;
        let bytes = self.bytes;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&|value| {
                if bytes {
                    size(*value)
                } else {
                    format!("{value:.0}")
                }
            })
            .light_line_style(WHITE)
            .draw()?;
        for (line, colour) in self.lines.iter().zip(COLOURS.into_iter().cycle()) {
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(3))?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.4))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// `64`, `4K`, `1M`.
pub(crate) fn size(bytes: f64) -> String {
    let units = [(1024.0 * 1024.0, "M"), (1024.0, "K")];
    let unit = units.into_iter().find(|(unit, _)| bytes >= *unit);
    unit.map_or_else(
        || format!("{bytes:.0}"),
        |(unit, name)| format!("{:.0}{name}", bytes / unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)]) -> Chart {
        Chart {
            title: "Throughput".to_owned(),
            x: "message",
            y: "GB/s",
            bytes: true,
            lines: vec![Line {
                name: "zcopy".to_owned(),
                points: points.to_vec(),
            }],
        }
    }

    #[test]
    fn a_drawing_has_title_axes_and_line() {
        let svg = chart(&[(1024.0, 1.0), (1_048_576.0, 3.0)])
            .svg()
            .unwrap()
            .unwrap();
        for part in ["<svg", "Throughput", "GB/s", "zcopy", "<polyline"] {
            assert!(svg.contains(part), "{part}");
        }
    }

    #[test]
    fn there_is_no_drawing_without_two_points() {
        assert_eq!(chart(&[]).svg().unwrap(), None);
        assert_eq!(chart(&[(64.0, 1.0)]).svg().unwrap(), None);
        assert_eq!(chart(&[(64.0, 0.0), (128.0, 0.0)]).svg().unwrap(), None);
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [(64.0, "64"), (65_536.0, "64K"), (1_048_576.0, "1M")] {
            assert_eq!(size(bytes), text);
        }
    }
}
