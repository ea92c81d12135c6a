//! Our metrics in the host's own metrics context, so that its endpoint shows them.
//!
//! The host reads the context on another thread without a lock. So every metric and every set of
//! labels is made inside Init, before the host may look, and afterwards values are only stored, which
//! is atomic.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use super::abi::{CreateMetricFn, SetMetricFn};
use super::host::find;
use crate::metrics::{Kind, METRICS, Metric, PREFIX, Sample};

/// The host's functions for one kind of metric.
#[derive(Clone, Copy)]
struct KindSymbols {
    create: CreateMetricFn,
    set: SetMetricFn,
}

impl KindSymbols {
    fn find(create: &CStr, set: &CStr) -> Option<Self> {
        let (create, set) = find(create).zip(find(set))?;
        // SAFETY: the signatures of counters and gauges are alike, and have been the same in every
        // host since 2.0.0 (cmt_counter.h, cmt_gauge.h).
        unsafe {
            Some(Self {
                create: std::mem::transmute::<*mut c_void, CreateMetricFn>(create),
                set: std::mem::transmute::<*mut c_void, SetMetricFn>(set),
            })
        }
    }
}

/// All that it takes to make metrics.
#[derive(Clone, Copy)]
pub struct MetricSymbols {
    counter: KindSymbols,
    gauge: KindSymbols,
}

impl MetricSymbols {
    /// What this process exports; all of it or nothing.
    pub fn find() -> Option<Self> {
        Some(Self {
            counter: KindSymbols::find(c"cmt_counter_create", c"cmt_counter_set")?,
            gauge: KindSymbols::find(c"cmt_gauge_create", c"cmt_gauge_set")?,
        })
    }

    fn of(&self, kind: Kind) -> KindSymbols {
        match kind {
            Kind::Counter => self.counter,
            Kind::Gauge => self.gauge,
        }
    }
}

/// One value in the host's context.
struct Series {
    handle: *mut c_void,
    set: SetMetricFn,
    labels: Vec<CString>,
    /// What it was last set to.
    value: f64,
}

/// The metrics of one instance. They live in the instance's context and die with it.
pub struct Metrics {
    name: CString,
    /// In the order of [`METRICS`].
    handles: Vec<(*mut c_void, SetMetricFn)>,
    /// In the order of the samples; made by the first of them.
    series: Vec<Series>,
}

impl Metrics {
    /// Creates all metrics; `None` if the host does not make one of them.
    ///
    /// # Safety
    /// `cmt` is the live metrics context of an instance that is being initialised on this thread, and
    /// outlives this value.
    pub unsafe fn new(symbols: MetricSymbols, cmt: *mut c_void, name: &str) -> Option<Self> {
        let create = |metric: &Metric| {
            let KindSymbols { create, set } = symbols.of(metric.kind);
            let text = |text: &str| CString::new(text).ok();
            let [namespace, subsystem] = PREFIX;
            let (namespace, subsystem) = (text(namespace)?, text(subsystem)?);
            let (own, help) = (text(metric.name)?, text(metric.help)?);
            let keys: Vec<CString> = metric.labels().iter().filter_map(|key| text(key)).collect();
            let (count, keys) = array(&keys);
            // SAFETY: by the caller's promise `cmt` is live; all texts end in NUL and are copied.
            let handle = unsafe {
                let (namespace, subsystem) = (namespace.as_ptr(), subsystem.as_ptr());
                create(cmt, namespace, subsystem, own.as_ptr(), help.as_ptr(), count, keys.as_ptr())
            };
            (!handle.is_null()).then_some((handle, set))
        };
        let handles = METRICS.iter().map(create).collect::<Option<_>>()?;
        Some(Self { name: CString::new(name).ok()?, handles, series: Vec::new() })
    }

    /// Shows all values; the first call makes the series, later ones store what has changed.
    pub fn set(&mut self, samples: &[Sample], time_nanos: u64) {
        if self.series.is_empty() {
            self.series = samples.iter().filter_map(|sample| self.series_of(sample)).collect();
        }
        for (series, sample) in self.series.iter_mut().zip(samples) {
            if series.value.to_bits() != sample.value.to_bits() {
                series.set(sample.value, time_nanos);
            }
        }
    }

    fn series_of(&self, sample: &Sample) -> Option<Series> {
        let index = METRICS.iter().position(|metric| metric.name == sample.metric.name)?;
        let (handle, set) = self.handles[index];
        // A label's text comes from the configuration, whose values cannot hold a NUL.
        let labels = sample.labels.iter().map(|label| CString::new(*label).unwrap_or_default());
        let labels = std::iter::once(self.name.clone()).chain(labels).collect();
        // Not a number equals nothing, so the first value is always stored.
        Some(Series { handle, set, labels, value: f64::NAN })
    }
}

impl Series {
    fn set(&mut self, value: f64, time_nanos: u64) {
        self.value = value;
        let (count, labels) = array(&self.labels);
        // SAFETY: the metric lives as long as its instance (see `Metrics::new`), on whose thread we
        // are. Its labels end in NUL and are copied. A counter that would fall stays as it is.
        unsafe { (self.set)(self.handle, time_nanos, value, count, labels.as_ptr()) };
    }
}

/// Texts as C takes a list of them.
fn array(texts: &[CString]) -> (c_int, Vec<*const c_char>) {
    let pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
    (pointers.len() as c_int, pointers)
}
