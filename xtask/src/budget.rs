pub(crate) fn check(_w: &crate::workspace::Workspace, _p: &str) -> anyhow::Result<()> {
    Ok(())
}
