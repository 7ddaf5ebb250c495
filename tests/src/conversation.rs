//! What two people on two servers do with each other: the traffic that every pairing must carry.

use anyhow::{Context, Result, ensure};

use crate::client::Client;

/// Runs the whole conversation between two freshly logged-in clients: messages both ways, the
/// subscription handshake, presence with notes, disco, ping, version, time, and vCard.
///
/// # Errors
/// The first thing that did not arrive as sent.
pub async fn all(a: &Client, b: &Client) -> Result<()> {
    for client in [a, b] {
        client
            .request(None, "get", "<query xmlns='jabber:iq:roster'/>")
            .await?;
        client.presence(None, None, "").await?;
    }
    messages(a, b).await.context("messages")?;
    subscribe(a, b).await.context("subscription")?;
    presence(a, b).await.context("presence")?;
    presence(b, a).await.context("presence back")?;
    queries(a, b).await.context("queries")?;
    queries(b, a).await.context("queries back")
}

/// One message each way, with characters that need escaping and some that are not ASCII.
///
/// # Errors
/// When one does not arrive as sent.
pub async fn messages(a: &Client, b: &Client) -> Result<()> {
    for (from, to) in [(a, b), (b, a)] {
        let body = "1 < 2 & \"drei\" – für 東京 😀";
        let id = format!("m-{}", from.fresh_id());
        from.message(to.full(), &id, body).await?;
        let got = to.expect_message(&id).await?;
        ensure!(
            got.attribute("type") == Some("chat") && got.attribute("from") == Some(from.full()),
            "{got:?}"
        );
        ensure!(got.child("body").is_some_and(|b| b.text == body), "{got:?}");
    }
    Ok(())
}

/// Both subscribe to each other and approve, as RFC 6121 section 3.1.
///
/// # Errors
/// When a step of the handshake does not arrive.
pub async fn subscribe(a: &Client, b: &Client) -> Result<()> {
    for (who, whom) in [(a, b), (b, a)] {
        who.presence(Some(whom.bare()), Some("subscribe"), "")
            .await?;
        whom.expect_presence(who.bare(), Some("subscribe")).await?;
        whom.presence(Some(who.bare()), Some("subscribed"), "")
            .await?;
        who.expect_presence(whom.bare(), Some("subscribed")).await?;
        // Approval brings the presence that is current.
        who.expect_presence(whom.full(), None).await?;
    }
    Ok(())
}

/// A presence change with a note reaches the other, and so does going away and coming back.
///
/// # Errors
/// When one of them does not arrive.
pub async fn presence(a: &Client, b: &Client) -> Result<()> {
    a.presence(None, None, "<show>dnd</show><status>in a meeting</status>")
        .await?;
    b.expect("a's busy presence", |p| {
        p.name == "presence"
            && p.attribute("from") == Some(a.full())
            && p.child("show").is_some_and(|s| s.text == "dnd")
    })
    .await?;
    a.presence(None, Some("unavailable"), "").await?;
    b.expect_presence(a.full(), Some("unavailable")).await?;
    a.presence(None, None, "").await?;
    b.expect_presence(a.full(), None).await?;
    Ok(())
}

/// Queries by `a` of `b`'s client, account and server.
///
/// # Errors
/// When one is not answered with a result.
pub async fn queries(a: &Client, b: &Client) -> Result<()> {
    let disco = "http://jabber.org/protocol/disco#info";
    let get = format!("<query xmlns='{disco}'/>");
    let features = format!("<query xmlns='{disco}'><feature var='urn:xmpp:ping'/></query>");
    let (asked, answered) = tokio::join!(
        a.request(Some(b.full()), "get", &get),
        b.answer(disco, &features)
    );
    answered?;
    let asked = asked?;
    ensure!(
        asked
            .child_in("query", disco)
            .is_some_and(|q| q.child("feature").is_some()),
        "{asked:?}"
    );
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    let (pinged, answered) = tokio::join!(
        a.request(Some(b.full()), "get", ping),
        b.answer("urn:xmpp:ping", "")
    );
    answered?;
    let pinged = pinged?;
    ensure!(pinged.attribute("type") == Some("result"), "{pinged:?}");

    let vcard = "<vCard xmlns='vcard-temp'><FN>Somebody Else</FN></vCard>";
    let set = b.request(None, "set", vcard).await?;
    ensure!(set.attribute("type") == Some("result"), "{set:?}");
    let got = a
        .request(Some(b.bare()), "get", "<vCard xmlns='vcard-temp'/>")
        .await?;
    ensure!(
        got.child("vCard")
            .and_then(|v| v.child("FN"))
            .is_some_and(|f| f.text == "Somebody Else"),
        "{got:?}"
    );

    let domain = b.bare().split_once('@').context("a JID")?.1;
    for payload in [
        get.as_str(),
        ping,
        "<query xmlns='jabber:iq:version'/>",
        "<time xmlns='urn:xmpp:time'/>",
    ] {
        let answer = a.request(Some(domain), "get", payload).await?;
        ensure!(
            answer.attribute("type") == Some("result"),
            "{payload} to the server: {answer:?}"
        );
    }
    Ok(())
}
