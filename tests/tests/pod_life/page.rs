//! The status page of a pod: nothing of it in clear, and nothing shown without the token.

use xmpp_edge_tests::browser::Browser;

use crate::{TOKEN, scene::Scene};

#[tokio::test]
async fn the_page_of_a_pod_is_not_sent_in_clear_and_shows_nothing_without_the_token() {
    let s = Scene::started().await.unwrap();
    for path in ["/", "/page/main.js", "/page/events"] {
        let (code, text) = s.pod.get(path).await.unwrap();
        assert!(
            code == 401 && text.contains("https"),
            "{path}: {code} {text}"
        );
    }
    let mut browser = Browser::start().await.unwrap();
    browser.take_any_certificate().await.unwrap();
    browser
        .open(&format!("https://{}/", s.pod.admin()))
        .await
        .unwrap();
    let asks = "!document.getElementById('token-section').hidden";
    let mut enter = async |token: &str| {
        browser.until(asks).await.unwrap();
        browser
            .evaluate("document.getElementById('token').focus()")
            .await
            .unwrap();
        browser.type_text(token).await.unwrap();
        browser.press("Enter").await.unwrap();
    };
    enter("another").await;
    enter(TOKEN).await;
    browser
        .until("document.getElementById('count').textContent.startsWith('1 partner')")
        .await
        .unwrap();
    browser.until(&format!("!({asks})")).await.unwrap();
    // It is not in the address, and a reload asks for nothing.
    let address = browser.evaluate("location.href").await.unwrap();
    assert!(!address.to_string().contains("token"), "{address}");
    browser.evaluate("location.reload()").await.unwrap();
    browser
        .until("document.getElementById('count').textContent.startsWith('1 partner')")
        .await
        .unwrap();
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
