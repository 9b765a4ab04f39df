//! Cost against devices, as a picture.

use std::fs;

use anyhow::{Context, Result};
use plotters::prelude::*;

use super::results::{self, Measurements};
use crate::checks::bench::contender::{CONTENDERS, FLOOR, PROGRAM};

const SIZE: (u32, u32) = (820, 520);

/// One colour each, told apart also by those who see no red or no green (Okabe and Ito's).
const COLOURS: [RGBColor; 7] = [
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];

/// The picture's file for that kernel.
pub fn name(kernel: &str) -> String {
    format!("cost-{kernel}.svg")
}

/// Draws one for each kernel into the folder of the measurements.
///
/// # Errors
/// When one cannot be written.
pub fn write(measurements: &Measurements) -> Result<()> {
    for kernel in measurements.kernels() {
        let file = results::folder().join(name(&kernel));
        fs::write(&file, draw(measurements, &kernel)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn doublings(devices: usize) -> f64 {
    f64::from(u32::try_from(devices).unwrap_or(u32::MAX)).log2()
}

/// Milliseconds against devices, both in powers.
///
/// # Errors
/// When the library cannot draw it.
pub fn draw(measurements: &Measurements, kernel: &str) -> Result<String> {
    let costs = measurements.costs.iter();
    let costs: Vec<_> = costs.filter(|entry| entry.kernel == kernel && entry.devices > 0).collect();
    let times = || costs.iter().map(|entry| entry.value.milliseconds());
    let devices = || costs.iter().map(|entry| entry.devices);
    let (low, high) = (times().fold(f64::MAX, f64::min) / 1.15, times().fold(0.0, f64::max) * 1.15);
    let last = devices().max().unwrap_or(1);

    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(
                format!("Giving devices to vfio-pci, Linux {kernel}, one processor"),
                ("sans-serif", 19),
            )
            .margin(14)
            .x_label_area_size(48)
            .y_label_area_size(64)
            .build_cartesian_2d(
                // Devices double from one line to the next.
                0.0..doublings(last),
                (low..high).log_scale(),
            )?;
        chart
            .configure_mesh()
            .x_desc("devices")
            .y_desc("million instructions (ms at 1 GHz)")
            .x_labels(12)
            .y_labels(20)
            .x_label_formatter(&|doublings| format!("{:.0}", doublings.exp2()))
            .y_label_formatter(&|time| {
                let text = format!("{time:.0}");
                // Others would lie on each other.
                let is_round = text.starts_with(['1', '2', '5']);
                if is_round { text } else { String::new() }
            })
            .light_line_style(WHITE)
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 15))
            .draw()?;
        for (contender, colour) in CONTENDERS.iter().zip(COLOURS) {
            let mut points = Vec::new();
            for entry in costs.iter().filter(|entry| entry.contender == contender.name) {
                let place = doublings(entry.devices);
                points.push((place, entry.value.milliseconds(), entry.value.stopped.is_none()));
            }
            if points.is_empty() {
                continue;
            }
            let bold = [PROGRAM, FLOOR].contains(&contender.name);
            let style = colour.stroke_width(if bold { 3 } else { 2 });
            let line = points.iter().map(|(x, y, _)| (*x, *y));
            chart
                .draw_series(LineSeries::new(line, style))?
                .label(contender.title)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
            // Hollow where no VM can start then.
            chart.draw_series(points.iter().map(|(x, y, works)| {
                let fill = if *works { colour.filled() } else { WHITE.filled() };
                EmptyElement::at((*x, *y))
                    + Circle::new((0, 0), 4, fill)
                    + Circle::new((0, 0), 4, colour.stroke_width(1))
            }))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .margin(12)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(190, 190, 190))
            .label_font(("sans-serif", 14))
            .draw()?;
        root.present()?;
    }
    Ok(text)
}
