//! Keeps the program on its interfaces when they go and come back.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    control::{Command, Handle, InterfaceView},
    dataplane::loader::{AttachedInterface, Attachments, lock},
};

/// Looks after the attachments until the control task ends.
pub(super) async fn keep_attached(
    attachments: Arc<Mutex<Attachments>>,
    mut views: Vec<InterfaceView>,
    control: Handle,
) {
    let mut tick = tokio::time::interval(PERIOD);
    let mut trouble = None;
    loop {
        tick.tick().await;
        let told = views.clone();
        look_after(&mut lock(&attachments), &mut views, &mut trouble);
        if views != told && control.submit(Command::Interfaces(views.clone())).await.is_err() {
            return;
        }
    }
}

/// `trouble`: with the program that runs; it is told when it begins, and not each time.
fn look_after(attachments: &mut Attachments, views: &mut [InterfaceView], trouble: &mut Option<String>) {
    let missing = attachments.missing();
    for interface in views {
        if !missing.contains(&interface.name) {
            interface.attached = true;
            continue;
        }
        match attachments.reattach(&interface.name) {
            Ok(attached) => {
                log::warn!("interface {} is back: attached again, {} mode", attached.name, attached.mode);
                *interface = view(&attached);
            }
            Err(error) => {
                if interface.attached {
                    log::error!("interface {} is not attached: {error}; trying again", interface.name);
                }
                interface.attached = false;
            }
        }
    }
    // After a capture that could not put the program back.
    let now = attachments.set_right().err().map(|error| error.to_string());
    if now != *trouble {
        match &now {
            Some(error) => log::error!("{error}; trying again"),
            None => log::info!("every interface runs the program that it should again"),
        }
        *trouble = now;
    }
}

/// Every configured interface: those that are attached, and those that are not there.
pub(super) fn views(attached: &[AttachedInterface], attachments: &Attachments) -> Vec<InterfaceView> {
    let known = |name: &String| attached.iter().any(|interface| interface.name == *name);
    let absent = attachments.missing().into_iter().filter(|name| !known(name));
    let absent = absent.map(|name| InterfaceView { name, mode: "none", attached: false });
    attached.iter().map(view).chain(absent).collect()
}

fn view(interface: &AttachedInterface) -> InterfaceView {
    InterfaceView { name: interface.name.clone(), mode: interface.mode, attached: true }
}

/// Half the time in which an interface that came back must be served again.
const PERIOD: Duration = Duration::from_millis(500);
