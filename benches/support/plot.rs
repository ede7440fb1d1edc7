//! What the benchmarks leave behind: their figures as JSON, and a picture of them, in
//! `target/bench`.
//!
//! The pictures have no background, and colours that can be told apart on a light and on a dark
//! page, at a width of 400 pixels.

use std::error::Error;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use plotters::prelude::*;
use serde_json::{Value, json};

const SIZE: (u32, u32) = (400, 330);
const FONT: (&str, u32) = ("sans-serif", 15);
/// Of text and axes.
const GREY: RGBColor = RGBColor(122, 122, 122);
const COLOURS: [RGBColor; 5] = [
    RGBColor(57, 135, 217),
    RGBColor(217, 116, 43),
    RGBColor(46, 158, 107),
    RGBColor(168, 106, 214),
    GREY,
];

/// A picture. The horizontal axis is logarithmic.
pub struct Plot {
    /// The file, without its ending.
    pub name: &'static str,
    pub x: (&'static str, Range<f64>),
    pub y: (&'static str, Range<f64>),
    /// Whether the vertical axis is logarithmic.
    pub log_y: bool,
    /// Where the names of the lines have room.
    pub names: SeriesLabelPosition,
    /// Lines, each with its name and at most as many as there are colours.
    pub lines: Vec<(&'static str, Vec<(f64, f64)>)>,
}

impl Plot {
    /// Writes the picture, and the `figures` beside it.
    pub fn write(&self, figures: &Value) {
        let directory = directory();
        fs::create_dir_all(&directory).unwrap();
        let file = |ending: &str| directory.join(format!("{}.{ending}", self.name));
        let text = format!("{figures:#}\n");
        fs::write(file("json"), text).unwrap();
        self.draw(&file("svg")).unwrap();
        println!(
            "\nwritten: {0}.json, {0}.svg",
            directory.join(self.name).display()
        );
    }

    fn draw(&self, file: &Path) -> Result<(), Box<dyn Error>> {
        let area = SVGBackend::new(file, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area);
        chart
            .margin(6)
            .margin_right(16)
            .x_label_area_size(38)
            .y_label_area_size(52);
        let x = self.x.1.clone().log_scale();
        // The two kinds of axes are two types.
        if self.log_y {
            let y = self.y.1.clone().log_scale();
            self.draw_on(&mut chart.build_cartesian_2d(x, y)?)?;
        } else {
            let y = self.y.1.clone();
            self.draw_on(&mut chart.build_cartesian_2d(x, y)?)?;
        }
        Ok(area.present()?)
    }

    fn draw_on<'a, Y>(
        &self,
        chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<LogCoord<f64>, Y>>,
    ) -> Result<(), Box<dyn Error>>
    where
        Y: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
    {
        let y_label = |value: &f64| {
            if self.log_y {
                logarithmic(*value)
            } else {
                value.to_string()
            }
        };
        chart
            .configure_mesh()
            .x_desc(self.x.0)
            .y_desc(self.y.0)
            .label_style(FONT.into_font().color(&GREY))
            .axis_desc_style(FONT.into_font().color(&GREY))
            .axis_style(GREY)
            .bold_line_style(GREY.mix(0.3))
            .light_line_style(TRANSPARENT)
            .x_label_formatter(&|value| logarithmic(*value))
            .y_label_formatter(&y_label)
            .draw()?;
        for ((name, points), colour) in self.lines.iter().zip(COLOURS) {
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.clone(), style))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], style));
            if points.len() < 10 {
                let dot = |at: &(f64, f64)| Circle::new(*at, 3, colour.filled());
                chart.draw_series(points.iter().map(dot))?;
            }
        }
        chart
            .configure_series_labels()
            .position(self.names.clone())
            .label_font(FONT.into_font().color(&GREY))
            .draw()?;
        Ok(())
    }
}

/// A label of a logarithmic axis: 1, 2 and 5 of each power of ten, and none at the others, which
/// would overlap.
fn logarithmic(value: f64) -> String {
    let text = value.to_string();
    let digits = text.trim_start_matches(['0', '.']);
    if digits.starts_with(['1', '2', '5']) {
        text
    } else {
        String::new()
    }
}

/// `target/bench`.
fn directory() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    target.unwrap().join("bench")
}

/// Where the figures are from.
pub fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap().trim().to_owned();
    let line = |path: &str, key: &str| {
        let text = read(path);
        let line = text.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split_once(':'));
        value.map(|(_, value)| value.trim().to_owned())
    };
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "processor": line("/proc/cpuinfo", "model name"),
        "memory": line("/proc/meminfo", "MemTotal"),
        "processors": available_parallelism().map_or(0, usize::from),
        "load": read("/proc/loadavg"),
    })
}
