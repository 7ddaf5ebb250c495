//! Chromium without a window, driven by the DevTools protocol over a pipe: what a person at the page sees,
//! types and hears.
//!
//! It reaches loopback alone, and collects what the browser complains of: a script that fails, a resource
//! that the page's policy forbids.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::unix::pipe,
};

use crate::{process::Daemon, wait};

/// Names a Chromium in place of Debian's.
const VARIABLE: &str = "XMPP_EDGE_CHROMIUM";
/// Where Debian's package has it.
const CHROMIUM: &str = "/usr/bin/chromium";

/// Nothing of a browser's own talks to anybody.
const ARGUMENTS: [&str; 13] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.*",
    "--window-size=1280,900",
    "--remote-debugging-pipe",
];

/// One browser with one tab.
pub struct Browser {
    daemon: Daemon,
    to: pipe::Sender,
    from: BufReader<pipe::Receiver>,
    last: u64,
    session: Option<String>,
    complaints: Vec<String>,
    // Last, so that its profile outlives the process.
    _directory: TempDir,
}

impl Browser {
    /// Starts it with an empty profile and a tab with nothing in it.
    ///
    /// # Errors
    /// When it is not installed or does not answer.
    pub async fn start() -> Result<Self> {
        let program = std::env::var_os(VARIABLE).map_or_else(|| CHROMIUM.into(), PathBuf::from);
        ensure!(
            program.exists(),
            "no {}: run tests/install, or name a Chromium in {VARIABLE}",
            program.display()
        );
        let directory = TempDir::new()?;
        let (to, from) = (fifo(&directory, "to")?, fifo(&directory, "from")?);
        let mut arguments = vec![
            "-c".to_owned(),
            // The protocol is read at 3 and written at 4.
            "exec \"$0\" \"$@\" 3<\"$DEVTOOLS_TO\" 4>\"$DEVTOOLS_FROM\"".to_owned(),
            program.display().to_string(),
        ];
        arguments.extend(ARGUMENTS.map(str::to_owned));
        arguments.push(format!(
            "--user-data-dir={}",
            directory.path().join("profile").display()
        ));
        let mut both = pipe::OpenOptions::new();
        // Open on both ends, so that neither opening nor an end of the browser is waited for.
        let both = both.read_write(true);
        let (sender, receiver) = (both.open_sender(&to)?, both.open_receiver(&from)?);
        let daemon = Daemon::start(
            "chromium",
            Path::new("/bin/sh"),
            &arguments,
            &[
                ("DEVTOOLS_TO", to.display().to_string()),
                ("DEVTOOLS_FROM", from.display().to_string()),
            ],
            &directory.path().join("log.txt"),
        )?;
        let mut browser = Self {
            daemon,
            to: sender,
            from: BufReader::new(receiver),
            last: 0,
            session: None,
            complaints: Vec::new(),
            _directory: directory,
        };
        let blank = json!({"url": "about:blank"});
        let target = browser.call("Target.createTarget", blank).await?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach).await?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(browser)
    }

    /// Goes to an address.
    ///
    /// # Errors
    /// When nothing is there.
    pub async fn open(&mut self, url: &str) -> Result<()> {
        let found = self.call("Page.navigate", json!({"url": url})).await?;
        if let Some(error) = found["errorText"].as_str() {
            bail!("{url}: {error}");
        }
        Ok(())
    }

    /// What an expression of JavaScript is, a promise's value included.
    ///
    /// # Errors
    /// What it throws.
    pub async fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let found = self.call("Runtime.evaluate", asked).await?;
        ensure!(found["exceptionDetails"].is_null(), "{expression}: {found}");
        Ok(found["result"]["value"].clone())
    }

    /// Waits until an expression is true in the sense of JavaScript; its value then.
    ///
    /// # Errors
    /// When it does not come true; says what the page says then.
    pub async fn until(&mut self, expression: &str) -> Result<Value> {
        let truth = format!("(() => {{ const it = {expression}; return it ? it : null; }})()");
        let found = wait::until(expression, wait::GENEROUS, async || {
            let found = self.evaluate(&truth).await.ok()?;
            (!found.is_null()).then_some(found)
        })
        .await;
        match found {
            Ok(found) => Ok(found),
            Err(error) => {
                let text = self.text().await.unwrap_or_default();
                let complaints = self.complaints.join("\n");
                Err(error.context(format!("{text}\n{complaints}")))
            }
        }
    }

    /// The text that the page shows.
    ///
    /// # Errors
    /// When there is none.
    pub async fn text(&mut self) -> Result<String> {
        let text = self.evaluate("document.body.innerText").await?;
        Ok(text.as_str().context("a text")?.to_owned())
    }

    /// Presses and releases a key by its name in the DOM (`Tab`, `Enter`).
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn press(&mut self, key: &str) -> Result<()> {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            _ => bail!("no code is known of the key {key}"),
        };
        let mut event = json!({"type": "keyDown", "key": key, "code": key,
            "windowsVirtualKeyCode": code});
        if key == "Enter" {
            event["text"] = json!("\r");
        }
        self.call("Input.dispatchKeyEvent", event).await?;
        let event =
            json!({"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", event).await?;
        Ok(())
    }

    /// Types into what has the focus.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn type_text(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({"text": text})).await?;
        Ok(())
    }

    /// Prefers dark colours, or light ones.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn prefer_dark(&mut self, dark: bool) -> Result<()> {
        let value = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": value}]);
        let asked = json!({"features": features});
        self.call("Emulation.setEmulatedMedia", asked).await?;
        Ok(())
    }

    /// Takes a certificate of anybody, as who reads a warning and goes on.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn take_any_certificate(&mut self) -> Result<()> {
        let asked = json!({"ignore": true});
        self.call("Security.setIgnoreCertificateErrors", asked)
            .await?;
        Ok(())
    }

    /// Lets a test's own scripts do what the page's policy forbids to its own, from the next page on.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn bypass_policy(&mut self) -> Result<()> {
        self.call("Page.setBypassCSP", json!({"enabled": true}))
            .await?;
        Ok(())
    }

    /// What it looks like, as PNG.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn screenshot(&mut self) -> Result<Vec<u8>> {
        let asked = json!({"format": "png"});
        let found = self.call("Page.captureScreenshot", asked).await?;
        let data = found["data"].as_str().context("a picture")?;
        Ok(BASE64_STANDARD.decode(data)?)
    }

    /// What the browser complained of since this was last asked: scripts that failed, what the policy of
    /// the page forbade.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last += 1;
        let mut asked = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            asked["sessionId"] = json!(session);
        }
        let answered = wait::within(method, wait::GENEROUS, async {
            self.to.write_all(asked.to_string().as_bytes()).await?;
            self.to.write_all(&[0]).await?;
            self.answer(self.last).await
        });
        match answered.await {
            Ok(found) => Ok(found),
            Err(error) => Err(error.context(self.daemon.log())),
        }
    }

    async fn answer(&mut self, id: u64) -> Result<Value> {
        loop {
            let mut message = Vec::new();
            self.from.read_until(0, &mut message).await?;
            message.pop();
            let mut message: Value = serde_json::from_slice(&message)?;
            if message["id"] == id {
                ensure!(message["error"].is_null(), "{}", message["error"]);
                return Ok(message["result"].take());
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(parameters.to_string()),
            // An answer other than 200 is told here, too, and is the test's to judge.
            Some("Log.entryAdded")
                if parameters["entry"]["level"] == "error"
                    && parameters["entry"]["source"] != "network" =>
            {
                self.complaints.push(parameters["entry"].to_string());
            }
            _ => {}
        }
    }
}

fn fifo(directory: &TempDir, name: &str) -> Result<PathBuf> {
    let path = directory.path().join(name);
    let made = Command::new("mkfifo").arg(&path).status()?;
    ensure!(made.success(), "mkfifo {}", path.display());
    Ok(path)
}
